"""What all runs stand on: registries, events, records, risk profiles, the ambient moment."""
