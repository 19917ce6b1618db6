"""Recipes: a table and feature sources, described in YAML, built into a store."""
