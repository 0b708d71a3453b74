"""Training of the demo model: data from packages, three stages as VILA's, export to the published layout."""
