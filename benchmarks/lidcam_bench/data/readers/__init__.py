"""One file per layout of a data set.

A new data set is one file with a function and one entry point. The function takes the folder and the split and
returns an `ImageSet`:

    def read_birds(folder: Path, split: str) -> ImageSet:
        records = [Record(path, labels=(0,), boxes=((x0, y0, x1, y1),), mask=MaskFile(mask)), ...]
        return ImageSet(f"birds/{split}", ("bird",), tuple(records))

The entry point, in the pyproject.toml of any installed package, names it:

    [project.entry-points."lidcam.datasets"]
    birds = "my_package.birds:read_birds"

`lidcam eval --data birds:DIR --split val`, recipes and `lidcam ablate` then open it. `MaskFile` reads masks and label
maps in every usual form; a mask that is made differently implements `lidcam_bench.data.masks.MaskSource`.
"""
