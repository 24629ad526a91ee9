// All parts are there: the first slice, and what was decided before.

const { about = "", ...left } = keptBefore();
change({ ...state, z: content.slices.count >> 1, ...left });
say(about);
