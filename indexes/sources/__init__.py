"""Sources of images: folders, tars and Parquet files, local or remote, read as parts of samples."""
