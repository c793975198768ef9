"""DICOM as a 3 T scanner writes it: one file a slice, or one enhanced multi-frame file.

Every identifier is made up and derived from a seed, so that the same phantom gives the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import ExplicitVRLittleEndian

from hydrops.phantom.signal import Sequence as MRSequence

CLASSIC = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED = "1.2.840.10008.5.1.4.1.1.4.1"
#: UIDs made of a hash stand under the root for such (DICOM PS3.5, B.2).
UID_ROOT = "2.25."


@dataclass(frozen=True)
class Series:
    """One series to write.

    Parameters
    ----------
    pixels
        (columns, rows, slices) as the affine's axes, 0 to 4095.
    affine
        Voxel to RAS mm; its columns are the image's column, row and slice directions.
    """

    number: int
    description: str
    sequence: MRSequence
    pixels: npt.NDArray[np.uint16]
    affine: npt.NDArray[np.float64]
    acquisition: str = "3D"


@dataclass(frozen=True)
class Study:
    """Who and when, all invented."""

    seed: int
    patient_name: str
    patient_id: str
    date: str = "20240115"


def write_series(
    folder: Path, study: Study, series: Series, enhanced: bool, leave_out: Sequence[int] = ()
) -> list[Path]:
    """Write a series below `folder` and return its files.

    Parameters
    ----------
    leave_out
        Slices (from 0) that are lost on the way; classic only.
    """
    target = folder / f"{series.number:04d}_{series.description}"
    target.mkdir(parents=True, exist_ok=True)
    if enhanced:
        return [_write_enhanced(target / "0001.dcm", study, series)]
    return [
        _write_slice(target / f"{index + 1:04d}.dcm", study, series, index)
        for index in range(series.pixels.shape[2])
        if index not in leave_out
    ]


def _uid(*parts: object) -> str:
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return UID_ROOT + str(int.from_bytes(digest[:16], "big"))


def _geometry(affine: npt.NDArray[np.float64]) -> tuple[list[float], list[float], list[float]]:
    """Orientation (row and column direction, LPS), voxel size, and slice direction."""
    lps = np.diag([-1.0, -1.0, 1.0]) @ affine[:3, :3]
    size = np.linalg.norm(lps, axis=0)
    unit = lps / size
    orientation = [round(float(v), 8) for v in (*unit[:, 0], *unit[:, 1])]
    return orientation, [round(float(v), 6) for v in size], [float(v) for v in unit[:, 2]]


def _position(affine: npt.NDArray[np.float64], index: int) -> list[float]:
    point = affine[:3, 3] + affine[:3, 2] * index
    return [round(float(v), 6) for v in point * [-1.0, -1.0, 1.0]]


def _common(study: Study, series: Series, sop_class: str, instance: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = instance
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = _uid("implementation")
    image = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    image.SpecificCharacterSet = "ISO_IR 100"
    image.SOPClassUID = sop_class
    image.SOPInstanceUID = instance
    image.StudyDate = image.SeriesDate = image.AcquisitionDate = image.ContentDate = study.date
    image.StudyTime = "120000.000000"
    image.SeriesTime = image.AcquisitionTime = f"12{series.number:02d}00.000000"
    image.ContentTime = image.AcquisitionTime
    image.Modality = "MR"
    image.Manufacturer = "SIEMENS"
    image.InstitutionName = "Phantom Hospital"
    image.ManufacturerModelName = "Phantom 3T"
    image.DeviceSerialNumber = "00000"
    image.SoftwareVersions = "syngo MR E11"
    image.StudyDescription = "Inner ear"
    image.SeriesDescription = series.description
    image.ProtocolName = series.description
    image.PatientName = study.patient_name
    image.PatientID = study.patient_id
    image.PatientBirthDate = "19700101"
    image.PatientSex = "O"
    image.PatientPosition = "HFS"
    image.StudyInstanceUID = _uid(study.seed, "study")
    image.SeriesInstanceUID = _uid(study.seed, "series", series.number)
    image.FrameOfReferenceUID = _uid(study.seed, "frame")
    image.StudyID = "1"
    image.SeriesNumber = series.number
    image.MagneticFieldStrength = 3.0
    image.ImagingFrequency = 123.25
    image.BodyPartExamined = "HEAD"
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.Rows, image.Columns = series.pixels.shape[1], series.pixels.shape[0]
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.PixelRepresentation = 0
    return image


def _timing(image: Dataset, series: Series) -> None:
    sequence = series.sequence
    image.RepetitionTime = sequence.tr_ms
    image.EchoTime = sequence.te_ms
    if sequence.ti_ms is not None:
        image.InversionTime = sequence.ti_ms
    image.ScanningSequence = ["SE", "IR"] if sequence.ti_ms is not None else "SE"
    image.SequenceVariant = "SK"
    image.ScanOptions = ""
    image.MRAcquisitionType = series.acquisition
    image.SequenceName = "*spcir_278ns" if sequence.ti_ms is not None else "*spc_278"
    image.EchoTrainLength = 278
    image.FlipAngle = 120.0
    image.NumberOfAverages = 1.0
    image.EchoNumbers = 1


def _write_slice(path: Path, study: Study, series: Series, index: int) -> Path:
    instance = _uid(study.seed, "instance", series.number, index)
    image = _common(study, series, CLASSIC, instance)
    orientation, size, _ = _geometry(series.affine)
    image.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "NORM"]
    _timing(image, series)
    image.AcquisitionNumber = 1
    image.InstanceNumber = index + 1
    image.ImagePositionPatient = _position(series.affine, index)
    image.ImageOrientationPatient = orientation
    image.PixelSpacing = [size[1], size[0]]
    image.SliceThickness = size[2]
    image.SpacingBetweenSlices = size[2]
    image.SliceLocation = image.ImagePositionPatient[2]
    image.PixelData = np.ascontiguousarray(series.pixels[:, :, index].T, "<u2").tobytes()
    image["PixelData"].VR = "OW"
    image.save_as(path, enforce_file_format=True)
    return path


def _write_enhanced(path: Path, study: Study, series: Series) -> Path:
    image = _common(study, series, ENHANCED, _uid(study.seed, "instance", series.number))
    orientation, size, _ = _geometry(series.affine)
    sequence = series.sequence
    image.ImageType = ["ORIGINAL", "PRIMARY", "M", "NONE"]
    image.InstanceNumber = 1
    image.AcquisitionNumber = 1
    image.MRAcquisitionType = series.acquisition
    image.PulseSequenceName = "*spcir_278ns" if sequence.ti_ms is not None else "*spc_278"
    image.EchoPulseSequence = "SPIN"
    image.VolumetricProperties = "VOLUME"
    count = series.pixels.shape[2]
    image.NumberOfFrames = count
    image.DimensionOrganizationSequence = DicomSequence([Dataset()])
    organisation = _uid(study.seed, "dimension", series.number)
    image.DimensionOrganizationSequence[0].DimensionOrganizationUID = organisation
    image.DimensionIndexSequence = DicomSequence([])
    for pointer in (0x00209056, 0x00209057):
        entry = Dataset()
        entry.DimensionOrganizationUID = organisation
        entry.DimensionIndexPointer = pointer
        entry.FunctionalGroupPointer = 0x00209111
        image.DimensionIndexSequence.append(entry)
    shared = Dataset()
    timing = Dataset()
    timing.RepetitionTime = sequence.tr_ms
    timing.FlipAngle = 120.0
    timing.EchoTrainLength = 278
    timing.RFEchoTrainLength = 278
    timing.GradientEchoTrainLength = 0
    echo = Dataset()
    echo.EffectiveEchoTime = sequence.te_ms
    modifier = Dataset()
    modifier.InversionRecovery = "YES" if sequence.ti_ms is not None else "NO"
    if sequence.ti_ms is not None:
        modifier.InversionTimes = [sequence.ti_ms]
    measures = Dataset()
    measures.PixelSpacing = [size[1], size[0]]
    measures.SliceThickness = size[2]
    measures.SpacingBetweenSlices = size[2]
    plane = Dataset()
    plane.ImageOrientationPatient = orientation
    shared.MRTimingAndRelatedParametersSequence = DicomSequence([timing])
    shared.MREchoSequence = DicomSequence([echo])
    shared.MRModifierSequence = DicomSequence([modifier])
    shared.PixelMeasuresSequence = DicomSequence([measures])
    shared.PlaneOrientationSequence = DicomSequence([plane])
    image.SharedFunctionalGroupsSequence = DicomSequence([shared])
    frames = []
    for index in range(count):
        frame, content, position = Dataset(), Dataset(), Dataset()
        content.StackID = "1"
        content.InStackPositionNumber = index + 1
        content.DimensionIndexValues = [1, index + 1]
        position.ImagePositionPatient = _position(series.affine, index)
        frame.FrameContentSequence = DicomSequence([content])
        frame.PlanePositionSequence = DicomSequence([position])
        frames.append(frame)
    image.PerFrameFunctionalGroupsSequence = DicomSequence(frames)
    image.PixelData = np.ascontiguousarray(series.pixels.transpose(2, 1, 0), "<u2").tobytes()
    image["PixelData"].VR = "OW"
    image.save_as(path, enforce_file_format=True)
    return path
