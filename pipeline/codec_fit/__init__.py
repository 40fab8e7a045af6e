"""Codec requirements, calibration and distortion."""
