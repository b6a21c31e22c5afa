// The program: everything is in the room.
#include "cli/cli.h"

int main(int argc, char** argv) { return pb::cli::Main(argc, argv); }
