"""Figures and tables: draws arrays, trials and studies, and computes nothing."""
