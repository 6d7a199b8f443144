#!/usr/bin/env bash
# The whole way in miniature: a CT phantom goes in as a DeepLesion release and as a PACS export, answers and a picture
# come out.
set -euo pipefail
cd "$(dirname "$0")/.."
lesionary=${LESIONARY:-lesionary}
out=${DEMO_DIR:-demo}
export LESIONARY_LAKE="$out/lake"

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

rm -rf "$out"
mkdir -p "$out"

say "1. A CT phantom, written as a DeepLesion release (8 patients, with every quirk of the published one)"
"$lesionary" phantom release "$out/release" --patients 8 --seed 7 --quirk all

say "2. Into the lake: read, check, de-identify, encode, commit"
"$lesionary" ingest "$out/release"

say "3. The same source again: nothing to do"
"$lesionary" ingest "$out/release"

say "4. From the lake into the feature store"
"$lesionary" sync

say "5. Answers"
ask() { echo "sql> $1"; "$lesionary" sql "$1"; }
ask "SELECT lesion_type, count(*) AS lesions, round(median(long_mm), 1) AS median_mm, round(max(long_mm), 1) AS largest_mm
     FROM lesion_features GROUP BY lesion_type ORDER BY lesions DESC"
ask "SELECT flag, count(*) AS lesions FROM (SELECT unnest(flags) AS flag FROM lesions) GROUP BY flag ORDER BY lesions DESC, flag"
ask "SELECT patient_id, count(DISTINCT study_id) AS studies, count(*) AS marks, round(sum(long_mm)) AS sum_mm
     FROM lesion_features GROUP BY patient_id ORDER BY sum_mm DESC LIMIT 5"

say "6. One lesion, with its diameters and box"
lesion=$("$lesionary" sql --csv "SELECT lesion_id FROM lesion_features WHERE image_available
     ORDER BY len(flags), window_low_hu, abs(long_mm - 25), lesion_id LIMIT 1" | tail -n 1)
"$lesionary" show "$lesion" --picture "$out/lesion.png"

say "7. Lesions like it in other patients; the same lesions through time; patients like this one; the response"
"$lesionary" similar "$lesion" -k 5 --picture "$out/similar.png"
patient=$("$lesionary" sql --csv "SELECT patient_id FROM lesion_features WHERE image_available
     GROUP BY patient_id ORDER BY count(DISTINCT study_id) DESC, count(*) DESC, patient_id LIMIT 1" | tail -n 1)
"$lesionary" match "$patient" --picture "$out/course.png" --growth-chart "$out/growth.png"
"$lesionary" patients similar "$patient" -k 3
"$lesionary" response "$patient" --chart "$out/response.png"

say "8. Every patient's lesions matched, kept as a run, and compared with the phantom's own truth"
"$lesionary" match --all
ask "SELECT state, count(*) AS rows FROM matches GROUP BY state ORDER BY rows DESC"
"$lesionary" evaluate matching --truth "$out/release/truth.csv" --report "$out/reports" | sed -n '1,12p'
"$lesionary" evaluate retrieval --feature-set location --report "$out/reports" | sed -n '1,12p'

say "9. A PACS export: DICOM in ten syntaxes, reports, presentation states, AIM, archives in archives, planted names"
"$lesionary" phantom pacs "$out/pacs" --patients 4 --seed 7 --image-size 256 --max-slices-per-series 10
# The demo's key lies in the demo's folder; yours lies in your configuration folder.
"$lesionary" ingest "$out/pacs/export" --key-file "$out/demo.key"
"$lesionary" sync
ask "SELECT source, source_format, count(*) AS lesions, round(median(long_mm), 1) AS median_mm
     FROM lesion_features GROUP BY ALL ORDER BY ALL"
ask "SELECT shape, source_format, count(*) AS marks, count(duplicate_of) AS duplicates FROM marks GROUP BY ALL ORDER BY ALL"

say "10. More patients and whole scans, small ones, to learn from"
"$lesionary" phantom release "$out/train" --patients 40 --volumes 20 --image-size 128 --max-slices-per-series 3 --seed 9
"$lesionary" ingest "$out/train" --namespace train

say "11. Body-part regression: every slice's height, learnt from the order of slices; and what it says of the PACS's series"
"$lesionary" train ssbr --preset smoke --threads 1
"$lesionary" locate
"$lesionary" sync
ask "SELECT source, count(*) AS lesions, count(location_z) AS placed, round(avg(location_z), 2) AS mean_z
     FROM lesion_features GROUP BY source ORDER BY source"

say "12. The triplet network, started by learning where in the body a crop lies; a training this short shows that it runs"
"$lesionary" train position --preset smoke --threads 1
"$lesionary" train triplet --preset smoke --weights position --threads 1
"$lesionary" models list
"$lesionary" embed
"$lesionary" sync
ask "SELECT round, label, count(*) AS lesions, round(avg(score), 2) AS mean_score FROM labels GROUP BY ALL ORDER BY ALL LIMIT 6"

say "13. The same questions, answered with the trained network"
"$lesionary" similar "$lesion" -k 5 --feature-set triplet --picture "$out/similar-triplet.png"
"$lesionary" match "$patient" --feature-set triplet
"$lesionary" evaluate table --row location --row triplet --where "split = 'test'" --report "$out/reports" | sed -n '1,12p'

say "14. Kinds of lesions, found without labels; a detector that learns them; what it sees in one patient's scans"
"$lesionary" train categories --preset smoke --weights position --threads 1
"$lesionary" categorise show --picture "$out/categories.png"
"$lesionary" categorise name 0 "first kind"
"$lesionary" train detector --preset smoke --set categories=categoriser --threads 1
# So short a training is sure of nothing: everything is kept, to have something to look at.
"$lesionary" detect --patient "$patient" --min-score 0.001 --picture "$out/found.png"

say "15. Masks: the diameters, areas and volumes of marked lesions and of what was detected"
"$lesionary" measure
"$lesionary" measure --detections detector
"$lesionary" sync
ask "SELECT detection_id, slice_index, slices, round(score, 2) AS score, category_name, round(long_mm) AS long_mm
     FROM detection_features ORDER BY score DESC, detection_id LIMIT 3"
ask "SELECT lesion_id, round(long_mm, 1) AS reader_mm, round(mask_long_mm, 1) AS mask_mm, round(mask_volume_mm3 / 1000, 1) AS ml
     FROM lesion_measurements WHERE NOT mask_cut_short ORDER BY ml DESC LIMIT 3"
"$lesionary" evaluate masks --truth "$out/release/truth_masks.json" --report "$out/reports" | sed -n '1,12p'

say "16. Out again, for a viewer: one measurement report a study"
"$lesionary" export sr "$out/sr"

say "17. Is everything whole?"
"$lesionary" lake verify --deep
"$lesionary" doctor

echo
echo "Look at the pictures and charts in $out/; ask more with: LESIONARY_LAKE=$out/lake $lesionary sql"
