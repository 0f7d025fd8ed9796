"""What strict.c refuses, which stands in front of the small tools that are Debian's; contract 9 and 0.3 item 10."""

NOT_MODELLED = (
    "small tools (ls, grep, sed, find, ...): long options, and letters that OpenBSD's tool has not",
    "chmod -h -H -L -P, du -r, ln -h, ls -g -o -s -T, rm -P, sed -a, tail -b -r, uniq -c, xargs -J -R",
    "cat -h, df -l -n -t, find -h -X -x, gzip -a -b -h -L -l -o -V, grep -U -V -Z, mktemp -t, split -p",
    "ps: other columns than those of -o, and -c -e -H -h -j -k -L -l -M -m -N -O -r -S -T -t -u -v -W",
    "tar: other letters than c t r x f z v p C h m P, and -j -s -O -X",
    "grep, sed: \\+ \\? \\| of basic expressions, \\w \\s \\b \\< and kin, [[:<:]]",
    "sed: \\t \\U and kin, scripts on stdin",
    "find: -flags -not -regex -printf, sizes in other units than blocks and c, -perm with / and +",
    "grep, sort, gzip, diff: options behind operands; mktemp -p while TMPDIR is set; dd status= iflag= oflag=",
)
