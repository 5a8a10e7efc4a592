"""The authors' networks beside ours: `python -m faithful.taming --peer PATH`, from the plug-in's folder."""
