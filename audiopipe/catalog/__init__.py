"""Read catalogs of videos from tables, folders and databases."""
