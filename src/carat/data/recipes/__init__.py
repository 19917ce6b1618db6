"""Recipes: YAML files that describe a table and feature sources, from which a store is built."""
