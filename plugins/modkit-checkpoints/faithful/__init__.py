"""Compares the authors' networks with ours: `python -m faithful.taming --peer PATH`, from the plug-in's folder."""
