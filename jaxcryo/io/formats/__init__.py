"""Picks in the formats of other programs."""

from jaxcryo.io.formats.base import PickFormat as PickFormat
from jaxcryo.io.formats.frame import Frames as Frames
from jaxcryo.io.formats.frame import TomogramFrame as TomogramFrame
from jaxcryo.io.formats.frame import frames_of_tomograms as frames_of_tomograms
from jaxcryo.io.formats.registry import FORMATS as FORMATS
from jaxcryo.io.formats.registry import above_thresholds as above_thresholds
from jaxcryo.io.formats.registry import check_writable as check_writable
from jaxcryo.io.formats.registry import detect as detect
from jaxcryo.io.formats.registry import format_for as format_for
from jaxcryo.io.formats.registry import losses as losses
from jaxcryo.io.formats.registry import read_picks as read_picks
from jaxcryo.io.formats.registry import write_picks as write_picks
from jaxcryo.io.formats.star import read_tomograms as read_tomograms
