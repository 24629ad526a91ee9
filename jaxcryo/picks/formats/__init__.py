"""Picks in the formats of other programs."""

from jaxcryo.picks.formats.base import PickFormat as PickFormat
from jaxcryo.picks.formats.registry import FORMATS as FORMATS
from jaxcryo.picks.formats.registry import above_thresholds as above_thresholds
from jaxcryo.picks.formats.registry import check_writable as check_writable
from jaxcryo.picks.formats.registry import detect as detect
from jaxcryo.picks.formats.registry import format_for as format_for
from jaxcryo.picks.formats.registry import losses as losses
from jaxcryo.picks.formats.registry import read_picks as read_picks
from jaxcryo.picks.formats.registry import write_picks as write_picks
from jaxcryo.picks.formats.star import read_tomograms as read_tomograms
from jaxcryo.picks.geometry import Frames as Frames
from jaxcryo.picks.geometry import TomogramFrame as TomogramFrame
from jaxcryo.picks.geometry import frames_of_tomograms as frames_of_tomograms
