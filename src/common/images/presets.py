"""Patterns of file names by the microscope that writes them: a pattern's name stands for it.

Held against the path below the folder: what was imaged together lies in a folder of its own, whose
name is the experiment where file names have none. Thumbnails and further focus planes do not match.
`scanr-96`, `cq1-384` and the like say what plate an index of wells counts.
"""

import re

from .field import SourceError
from .wells import FORMATS

# Below MEASUREMENT/Images/, MEASUREMENT/data/, MEASUREMENT/1-Pos_000_000/, or anywhere
_BELOW = r"(?:Images?|data|Default|AssayPlate[^/]*|[^/]*Pos[^/]*)"
_RUN = rf"(?:(?:.*/)?(?P<experiment>[^/]+)/{_BELOW}/)?(?:.*/)?"
_FOLDER = r"(?:(?:.*/)?(?P<experiment>[^/]+)/)?"  # directly in a folder for each measurement
_SCANR = r"--P(?P<position>\d+)--Z00000--T(?P<time>\d+)--(?P<channel>[^-]+)\.tif"
_CQ1 = r"F(?P<position>\d+)T(?P<time>\d+)Z0*1C(?P<channel>\d+)\.tif"
PRESETS = {
    # HTS_A01_s1_w2GUID.TIF, also below TimePoint_1/ZStep_1/; A01_s1_w2GUID.tif; of one wavelength
    # HTS_A01_s1.TIF or HTS_A01_s1GUID.TIF
    "imagexpress": r"(?i:(?!.*ZStep_(?!1/))(?:.*?TimePoint_(?P<time>\d+)/)?(?:.*/)?"
    r"(?:(?P<experiment>[^/]+)_)?(?P<well>(?-i:(?!s))[A-Z]{1,2}\d{2})(?:_s(?P<position>\d+?))?"
    r"(?:_w(?P<channel>\d)[0-9A-Z-]*|(?:[0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12})?)\.tif)",
    # Opera Phenix and Operetta: r01c02f03p01-ch1sk1fk1fl1.tiff
    "opera": _RUN + r"r(?P<row>\d{2})c(?P<column>\d{2})f(?P<position>\d{2,})p01-ch(?P<channel>\d+)"
    r"(?:sk(?P<time>\d+))?\w*\.tiff",
    # A1--W00001--P00001--Z00000--T00000--BF.tif
    "scanr": _RUN + r"(?P<well>[A-Za-z]{1,2}\d+)--W\d+" + _SCANR,
    # img_channel000_position000_time000000000_z000.tif, in a folder for each position or not
    "micro-manager": _RUN + r"img_channel(?P<channel>\d+)_position(?P<position>\d+)"
    r"_time(?P<time>\d+)_z0+\.tif",
    # Yokogawa CV7000, CV8000: AssayPlate_Greiner_C02_T0001F001L01A01Z01C01.tif
    "cellvoyager": _RUN + r"(?:[^/]*_)?(?P<well>[A-Z]{1,2}\d{2})_T(?P<time>\d+)F(?P<position>\d+)"
    r"L\d+A\d+Z0*1C(?P<channel>\d+)\.tif",
    # Gen5 of Cytation and Lionheart: well, read, channel, field, channel's name, time point:
    # A1_02_1_3_Bright Field_001.tif, A1_02_1_3Z0_Bright Field_001.tif
    "gen5": _FOLDER + r"(?P<well>[A-Z]{1,2}\d{1,2})_-?\d+_\d+_(?P<position>\d+)(?:Z0)?_"
    r"(?P<channel>[^/]+)_(?P<time>\d{3,})\.tif",
    # EVOS, the time after p: scan_Plate_R_p00_0_A01f00d4.TIF; MFGTMP_140206180002_A01f00d0.TIF
    "evos": r"(?:.*/)?(?:(?P<experiment>[^/]+?)_(?:p(?P<time>\d+)_\d+_)?)?(?P<well>[A-Z]{1,2}\d{2})"
    r"f(?P<position>\d+)d(?P<channel>\d+)(?i:\.tiff?)",
    # IN Cell Analyzer: A - 01(fld 1 wv TL-Brightfield - Cy3).tif
    "incell": _FOLDER + r"(?P<row>[A-Z]{1,2}) - (?P<column>\d{1,2})\(fld (?P<position>\d+) "
    r"wv (?P<channel>(?:(?! z \d)[^()])+)(?: z 0*1)?\)\.tif",
    # Micro-Manager 1.4: Pos0/img_000000002_BF_000.tif, B7-Site_1/img_000000002_BF_000.tif
    "micro-manager-1": _FOLDER + r"(?:(?P<well>[A-P]\d{1,2})-Site_)?(?P<position>[^/]+)/"
    r"img_(?P<time>\d{9})_(?P<channel>.+)_000\.tif",
    # Micro-Manager 2, channels in one file: run_MMStack_Pos0.ome.tif, run_MMStack_B7-Site_0.ome.tif
    "micro-manager-2": r"(?:.*/)?(?P<experiment>[^/]+)_MMStack_"
    r"(?:(?P<well>[A-P]\d{1,2})-Site_)?(?P<position>[^/]+)\.ome\.tif",
    # B7_1_00d06h00m.tif, VID123_B7_1_2023y04m01d_06h00m.tif
    "incucyte": r"(?:.*/)?(?:(?P<experiment>[^/]+)_)?(?P<well>[A-P]\d{1,2})_(?P<position>\d+)_"
    r"(?P<time>\d+d\d+h\d+m|\d{4}y\d\dm\d\dd_\d\dh\d\dm)\.tif",
}
for _wells in FORMATS:
    PRESETS[f"scanr-{_wells}"] = _RUN + rf"[^/]*--W(?P<well{_wells}>\d+)" + _SCANR
    PRESETS[f"cq1-{_wells}"] = _RUN + rf"W(?P<well{_wells}>\d+)" + _CQ1
PRESETS |= {"operetta": PRESETS["opera"], "cellomics": PRESETS["evos"]}


def expression(pattern: str, setting: str) -> re.Pattern:
    """A pattern as a user gives it, compiled: a name of PRESETS, or a regular expression.

    Raises SourceError for none.
    """
    text = PRESETS.get(pattern.lower(), pattern)
    try:
        return re.compile(text)
    except re.error as error:
        named = f"nor one of {', '.join(sorted(PRESETS))}"
        raise SourceError(
            f"{setting} is not a regular expression ({error}), {named}: {text}"
        ) from None
