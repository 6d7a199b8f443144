"""Who may take which role in a sequence, told by plain loops over every lesion."""

import numpy as np

from trainers.triplet.sampling import SequenceSampler


def apart(left, right):
    """Euclidean distance, squared."""
    return sum((float(a) - float(b)) ** 2 for a, b in zip(left, right, strict=True))


def small_set(seed, count=70, types=3, patients=9, spread=0.12):
    """Lesions of a few types around a place each: types, locations, sizes in mm, patients."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(types, size=count)
    centres = rng.uniform(0.3, 0.7, (types, 3))
    locations = centres[kinds] + rng.normal(0, spread, (count, 3))
    long = rng.uniform(5, 40, count)
    return (
        kinds,
        locations,
        np.stack((long, long * rng.uniform(0.5, 1, count)), axis=1),
        rng.integers(patients, size=count),
    )


def roles_of(anchor, types, locations, sizes_mm, patients, sampler: SequenceSampler):
    """For one anchor the set of rows of each role, after the fallbacks; None when it is no anchor."""
    settings, used = sampler.settings, sampler.thresholds
    cues = settings.cues.split("+")
    sizes = np.asarray(sizes_mm) / settings.size_unit_mm

    def takes_part(row):
        return (
            ("type" not in cues or types[row] >= 0)
            and ("location" not in cues or all(np.isfinite(locations[row])))
            and ("size" not in cues or all(np.isfinite(sizes[row])))
        )

    if not takes_part(anchor):
        return None
    rows = {role: set() for role in ("B", "C", "relaxed C", "D", "E")}
    for row in range(len(types)):
        if row == anchor or not takes_part(row):
            continue
        if "type" in cues and types[row] != types[anchor]:
            rows["E"].add(row)
            continue
        place = apart(locations[row], locations[anchor]) if "location" in cues else 0.0
        size = apart(sizes[row], sizes[anchor]) if "size" in cues else 0.0
        near = "location" not in cues or place < used.location_low**2
        other = not settings.other_patient or patients[row] != patients[anchor]
        if near and other and ("size" not in cues or size < used.size_low**2):
            rows["B"].add(row)
        if "size" in cues and size > used.size_high**2:
            if near:
                rows["C"].add(row)
            if place < used.location_high**2:
                rows["relaxed C"].add(row)
        if "location" in cues and place > used.location_high**2:
            rows["D"].add(row)
    if not rows["B"]:
        return None
    rows["C"] = rows["C"] or rows["relaxed C"]
    return rows
