"""Where images come from: folders, tars and Parquet, local or in a store, as parts of samples."""
