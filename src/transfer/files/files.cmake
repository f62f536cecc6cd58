# Included by the room: files, and the page of counters.
set(TERSOR_TRANSFER_FILE_SOURCES
  files/file_regions.cpp files/file_sink.cpp files/file_source.cpp http_request.cpp metrics.cpp metrics_server.cpp)
