#!/bin/sh
# No function that the linker could share with other files (weak or external) may contain instructions beyond baseline
# x86-64: the kept copy would be an illegal instruction for callers on an older CPU.
# Usage: isa_symbols_test.sh NM OBJDUMP OBJECT...
set -eu
nm=$1
objdump=$2
shift 2
[ $# -gt 0 ] || { echo "no objects given" >&2; exit 2; }
failed=0
vector=0
for object in "$@"; do
  shared=$("$nm" --defined-only "$object" | awk '$2 ~ /^[TWVui]$/ { print $3 }')
  report=$("$objdump" -d --no-show-raw-insn "$object" | awk -v shared="$shared" '
    BEGIN { n = split(shared, names, "\n"); for (i = 1; i <= n; i++) is_shared[names[i]] = 1 }
    /^[0-9a-f]+ <.*>:$/ { name = substr($2, 2, length($2) - 3); next }
    {
      op = $2
      newer = (op ~ /^v/ && op !~ /^ver[rw]$/) || op ~ /^k(mov|ortest|or|and|test|not|shift)/ ||
              op ~ /^(pext|pdep|bzhi|shlx|shrx|sarx|rorx|mulx|andn|blsr|blsi|blsmsk|lzcnt|tzcnt|popcnt)/
      if (!newer) next
      total++
      if (name in is_shared && !(name in told)) { told[name] = 1; print "shared function " name ": " op }
    }
    END { print "total " total + 0 }')
  count=$(printf '%s\n' "$report" | sed -n 's/^total //p')
  vector=$((vector + count))
  bad=$(printf '%s\n' "$report" | grep -v '^total ' || true)
  if [ -n "$bad" ]; then
    printf '%s:\n%s\n' "$object" "$bad" >&2
    failed=1
  fi
done
# Without one such instruction anywhere the check would be looking at the wrong files.
[ "$vector" -gt 0 ] || { echo "no instruction of a backend found" >&2; exit 2; }
exit $failed
