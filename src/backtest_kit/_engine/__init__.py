"""What all runs are built on: registries, events, records, risk profiles, the ambient moment."""
