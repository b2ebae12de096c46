"""Objects below an address, as a dictionary, and copies to and from a disk."""

from __future__ import annotations

from causalprune.trajectory.storage import locate

PATH = "t.zarr"


def tree(url):
    """Every object below an address by name, with its bytes."""
    location = locate(url)
    infos = location.client.below(location.key)
    return {info.key[len(location.key) + 1 :]: bytes(location.client.get(info.key)[0]) for info in infos}


def put(url, name, data):
    location = locate(url) / name
    location.client.put(location.key, data)


def delete(url, *names):
    location = locate(url)
    location.client.delete(*((location / name).key for name in names))


def copy_down(url, path):
    for name, data in tree(url).items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def copy_up(path, url):
    for file in path.rglob("*"):
        if file.is_file():
            put(url, file.relative_to(path).as_posix(), file.read_bytes())
    return url


def local_tree(path):
    """Every file below a path by name, with its bytes."""
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}
