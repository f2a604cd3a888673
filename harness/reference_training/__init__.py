"""How the reference models and their suite were made."""
