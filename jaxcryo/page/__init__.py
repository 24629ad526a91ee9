"""One HTML file for judging picks: slices, heatmaps, picks, thresholds and, if known, the ground truth."""

from jaxcryo.page.index import IndexRow as IndexRow
from jaxcryo.page.index import write_index as write_index
from jaxcryo.page.overlay import Overlay as Overlay
from jaxcryo.page.overlay import OverlayImages as OverlayImages
from jaxcryo.page.page import Page as Page
from jaxcryo.page.page import Sections as Sections
from jaxcryo.page.page import change_thresholds as change_thresholds
from jaxcryo.page.page import versions as versions
from jaxcryo.page.page import write_page as write_page
from jaxcryo.page.slices import SliceImages as SliceImages
from jaxcryo.page.slices import slice_images as slice_images
