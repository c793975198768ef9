"""Endolymphatic hydrops from MRI, for whole cohorts."""
