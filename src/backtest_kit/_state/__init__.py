"""Durable state: documents, adapters that keep them, and who owns them."""
