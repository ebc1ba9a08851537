"""Generated protocol buffer modules; sources are the .proto files beside this package."""
