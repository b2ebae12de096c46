"""Where data sets come from: published ones, folders of images, arrays, and the user's own function."""
