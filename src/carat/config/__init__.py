"""Configuration: experiments, their sections, presets, and the registry of methods."""
