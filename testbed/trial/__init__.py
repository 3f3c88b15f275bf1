"""One plan -> one record; a campaign of plans; local engines."""
