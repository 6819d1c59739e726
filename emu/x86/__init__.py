"""The architecture as the SDM describes it: registers, segments, paging, exceptions.  No engine, no I/O."""
