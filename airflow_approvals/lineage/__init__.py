"""What moved, from where to where, column by column, and whose approval let it: OpenLineage events."""
