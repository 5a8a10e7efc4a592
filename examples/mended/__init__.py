"""Figures of mended defects, each measured with the code before and after."""
