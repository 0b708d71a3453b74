// Executes one instruction that only some ARM CPUs have, so that a test of an emulated CPU model can see what it
// refuses: arm_probe fmla|sdot|smmla ends normally or with an illegal instruction.
#include <cstring>

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  if (std::strcmp(argv[1], "fmla") == 0) {
    asm volatile("fmla v0.4s, v1.4s, v2.4s" ::: "v0");
  } else if (std::strcmp(argv[1], "sdot") == 0) {
    asm volatile(".arch armv8.2-a+dotprod\n\tsdot v0.4s, v1.16b, v2.16b" ::: "v0");
  } else if (std::strcmp(argv[1], "smmla") == 0) {
    asm volatile(".arch armv8.2-a+i8mm\n\tsmmla v0.4s, v1.16b, v2.16b" ::: "v0");
  } else {
    return 2;
  }
  return 0;
}
