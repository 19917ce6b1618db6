"""Several stores or recipes as one store."""
