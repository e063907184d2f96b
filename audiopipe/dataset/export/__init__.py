"""Write a dataset in the formats of trainers: Hugging Face's Parquet, Lhotse Shar, MosaicML's MDS, Energon's index."""
