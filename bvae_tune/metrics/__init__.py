"""Scores of representations: arrays in, numbers out. The way in is `protocol.score_codes`."""
