"""Picks in the formats of other programs."""

from jaxcryo.picks.formats.base import PickFormat as PickFormat
from jaxcryo.picks.formats.base import Rows as Rows
from jaxcryo.picks.formats.base import check_names as check_names
from jaxcryo.picks.formats.base import picks_by_run as picks_by_run
from jaxcryo.picks.formats.copick import copick_by as copick_by
from jaxcryo.picks.formats.registry import check_writable as check_writable
from jaxcryo.picks.formats.registry import detect as detect
from jaxcryo.picks.formats.registry import format_for as format_for
from jaxcryo.picks.formats.registry import format_of as format_of
from jaxcryo.picks.formats.registry import formats as formats
from jaxcryo.picks.formats.registry import losses as losses
from jaxcryo.picks.formats.registry import read_picks as read_picks
from jaxcryo.picks.formats.registry import register as register
from jaxcryo.picks.formats.registry import writable_formats as writable_formats
from jaxcryo.picks.formats.registry import write_picks as write_picks
from jaxcryo.picks.formats.tomograms_star import known_geometries as known_geometries
from jaxcryo.picks.formats.tomograms_star import read_tomograms as read_tomograms
from jaxcryo.picks.geometry import Geometries as Geometries
from jaxcryo.picks.geometry import TomogramGeometry as TomogramGeometry
from jaxcryo.picks.geometry import geometries_of_tomograms as geometries_of_tomograms
from jaxcryo.picks.thresholds import above_thresholds as above_thresholds
