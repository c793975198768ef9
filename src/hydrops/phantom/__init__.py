"""A digital phantom of a hydrops examination: anatomy, MR physics, DICOM."""
