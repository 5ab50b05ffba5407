"""What runners on other machines need: Flink, Spark, Dask, Prism, Dataflow."""
