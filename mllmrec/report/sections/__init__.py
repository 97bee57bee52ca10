"""The sections of pages: one file each, numbers and plots in, a small record out; templates lay them out."""
