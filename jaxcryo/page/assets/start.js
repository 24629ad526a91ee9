// All parts are there: the first slice, and what was decided before.

change({ ...state, z: content.slices.count >> 1, edits: keptBefore() });
if (state.edits.length) say("What was decided here before is back.");
