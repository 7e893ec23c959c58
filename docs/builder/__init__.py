"""What makes the documentation: the report card, the migration table, and the site."""
