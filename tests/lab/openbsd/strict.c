/*
 * The stand-in's front of the small tools that are GNU's behind it: contract 9 and 0.3 item 10.
 *
 * It is installed under the tools' names and starts /usr/lib/standin/bin/NAME only if OpenBSD's tool of that name has
 * the options given, and the real program means the same by them. Everything else is "not modelled" (exit 99, and a
 * line in /var/standin/unmodelled), never a guess. The options are those of the manual pages and getopt(3) strings of
 * openbsd/src.
 *
 * STANDIN_ROOT and STANDIN_BIN stand for / and /usr/lib/standin/bin in tests.
 */

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REFUSED 99

enum kind {
	PLAIN,      /* options, then operands that may look like anything */
	PERMUTES,   /* as PLAIN, and OpenBSD's getopt_long(3) looks for options behind operands, too */
	BARE,       /* as PLAIN, and the real program stops at the first operand by itself */
	GREP,       /* the pattern's dialect */
	SED,        /* the script's dialect */
	FIND,       /* primaries after the paths */
	TAR,        /* bundled letters without a dash */
	MODE,       /* chmod: an operand may begin with a dash */
	COUNT,      /* head, tail: -NUMBER */
	WORDS,      /* no options at all, operands are the program's language */
	MKTEMP,     /* the template's X */
	TOUCH,      /* the form of -d */
	SLEEP,      /* no unit after the number */
	PRINTF      /* no %q */
};

struct tool {
	const char *name;
	const char *openbsd; /* getopt(3) string of OpenBSD's tool */
	const char *carried; /* those of them that the real program has with the same meaning */
	enum kind kind;
};

static const struct tool tools[] = {
	{"ls", "1ACFHLRSTacdfghiklmnopqrstux", "1ACFHLRSacdfhiklmnpqrtux", PLAIN},
	{"cp", "HLPRafiprv", "HLPRafiprv", PLAIN},
	{"mv", "ifv", "ifv", PLAIN},
	{"rm", "dfiPRrv", "dfiRrv", PLAIN},
	{"rmdir", "p", "p", PLAIN},
	{"mkdir", "m:p", "m:p", PLAIN},
	{"ln", "fhLnPs", "fLnPs", PLAIN},
	{"chmod", "HLPRh", "R", MODE},
	{"chown", "fHLPRh", "fHLPRh", PLAIN},
	{"chgrp", "fHLPRh", "fHLPRh", PLAIN},
	{"grep", "A:B:C:EFGHILRUVabce:f:hilm:noqrsvwxZ", "A:B:C:EFGHILRabce:f:hilm:noqrsvwx", GREP},
	{"egrep", "A:B:C:EFGHILRUVabce:f:hilm:noqrsvwxZ", "A:B:C:EFGHILRabce:f:hilm:noqrsvwx", GREP},
	{"fgrep", "A:B:C:EFGHILRUVabce:f:hilm:noqrsvwxZ", "A:B:C:EFGHILRabce:f:hilm:noqrsvwx", GREP},
	{"sed", "Eae:f:i::nru", "Ee:f:i::nru", SED},
	{"awk", "F:f:v:V", "F:f:v:", BARE},
	{"find", "dHhLXx", "dHL", FIND},
	{"xargs", "0E:I:J:L:n:oP:pR:rs:tx", "0E:I:L:n:oP:prs:tx", BARE},
	{"sort", "bCcdfgHhik:Mmno:RrS:sT:t:uVz", "bCcdfghik:Mmno:RrS:sT:t:uVz", PERMUTES},
	{"head", "n:", "n:", COUNT},
	{"tail", "b:c:fn:r", "c:fn:", COUNT},
	{"cut", "b:c:d:f:ns", "b:c:d:f:ns", PLAIN},
	{"tr", "Ccds", "Ccds", PLAIN},
	{"cat", "benstuv", "benstuv", PLAIN},
	{"df", "hiklnPt:", "hikP", PLAIN},
	{"du", "acd:HhkLPrsx", "acd:HhkLPsx", PLAIN},
	{"tar", "0123456789BC:HI:LNOPXZabcef:hjmopqrs:tuvwxz", "C:Pcf:hmprtvxz", TAR},
	{"gzip", "123456789ab:cdfhkLlNno:qrS:tVv", "123456789cdfklNnqrS:tv", PERMUTES},
	{"gunzip", "cfhkLlNno:qrtVv", "cfklNnqrtv", PERMUTES},
	{"zcat", "fhV", "f", PERMUTES},
	{"touch", "acd:fmr:t:", "acd:fmr:t:", TOUCH},
	{"tee", "ai", "ai", PLAIN},
	{"uniq", "cdf:is:u", "df:is:u", PLAIN},
	{"diff", "0123456789abC:cdD:efhI:iL:lnNPpqrS:sTtU:uwX:x:", "abC:cdD:eI:iL:lnNPpqrS:sTtU:uwX:x:", PERMUTES},
	{"cmp", "ls", "ls", PLAIN},
	{"comm", "123f", "123", PLAIN},
	{"join", "a:e:j:o:t:v:1:2:", "a:e:j:o:t:v:1:2:", PLAIN},
	{"paste", "d:s", "d:s", PLAIN},
	{"fold", "bsw:", "bsw:", PLAIN},
	{"split", "a:b:l:p:", "a:b:l:", PLAIN},
	{"od", "A:aBbcDdeFfHhIij:LlN:Oost:vXx", "A:abcdj:N:ost:vx", PLAIN},
	{"env", "iu:", "iu:", BARE},
	{"nohup", "", "", BARE},
	{"nice", "n:", "n:", BARE},
	{"timeout", "fk:ps:", "fk:ps:", BARE},
	{"printf", "", "", PRINTF},
	{"expr", "", "", WORDS},
	{"test", "", "", WORDS},
	{"[", "", "", WORDS},
	{"echo", "", "", WORDS},
	{"true", "", "", WORDS},
	{"false", "", "", WORDS},
	{"sleep", "", "", SLEEP},
	{"basename", "", "", PLAIN},
	{"dirname", "", "", PLAIN},
	{"readlink", "fn", "fn", PLAIN},
	{"realpath", "q", "q", PLAIN},
	{"mktemp", "dp:qtu", "dp:qu", MKTEMP},
	{"pwd", "LP", "LP", PLAIN},
	{"tty", "s", "s", PLAIN},
	{"sync", "", "", PLAIN},
	{"logname", "", "", PLAIN},
	{"seq", "f:s:w", "f:s:w", PLAIN},
	{"mkfifo", "m:", "m:", PLAIN},
	{"nl", "b:d:f:h:i:l:n:ps:v:w:", "b:d:f:h:i:l:n:ps:v:w:", PLAIN},
	{"expand", "t:", "t:", PLAIN},
	{"printenv", "", "", PLAIN},
	{"groups", "", "", PLAIN},
	{"whoami", "", "", PLAIN},
	{"yes", "", "", PLAIN},
	{"dd", "", "", WORDS},
	{"getent", "", "", WORDS},
	{"ps", "AaceHhjkLlM:mN:O:o:p:rSTt:U:uvW:wx", "Aao:p:U:wx", BARE},
};

static int given_count;
static char **given;

/* Say what is not modelled, keep it for the run's end, and leave. */
static void __attribute__((noreturn, format(printf, 1, 2)))
refuse(const char *format, ...)
{
	char why[512], line[4096], path[PATH_MAX];
	const char *root = getenv("STANDIN_ROOT");
	size_t used;
	int record;
	__builtin_va_list list;

	__builtin_va_start(list, format);
	vsnprintf(why, sizeof(why), format, list);
	__builtin_va_end(list);
	used = (size_t)snprintf(line, sizeof(line), "standin: not modelled: %s", basename(given[0]));
	for (int n = 1; n < given_count && used < sizeof(line) - 600; n++)
		used += (size_t)snprintf(line + used, sizeof(line) - 600 - used, " %s", given[n]);
	if (used > sizeof(line) - 600)
		used = sizeof(line) - 600;
	for (size_t n = 0; n < used; n++)
		if (line[n] == '\n')
			line[n] = ' ';
	used += (size_t)snprintf(line + used, sizeof(line) - used, ": %s\n", why);
	fputs(line, stderr);
	snprintf(path, sizeof(path), "%s/var/standin/unmodelled", root ? root : "");
	record = open(path, O_WRONLY | O_APPEND | O_CREAT, 0666);
	if (record < 0 || write(record, line, used) != (ssize_t)used)
		fprintf(stderr, "standin: %s: %s\n", path, strerror(errno));
	exit(REFUSED);
}

/* Return the place of an option in a getopt(3) string, NULL if it is not there. */
static const char *
lookup(const char *letters, char letter)
{
	const char *found = letter == ':' ? NULL : strchr(letters, letter);

	return letter == '\0' ? NULL : found;
}

/* Refuse what OpenBSD's regex(3) does not know, or the real program's does not. */
static void
check_pattern(const char *text, bool extended)
{
	if (strstr(text, "[[:<:]]") || strstr(text, "[[:>:]]"))
		refuse("word limits [[:<:]] and [[:>:]]");
	for (; *text; text++) {
		if (*text != '\\')
			continue;
		text++;
		if (*text == '\0')
			return;
		if (!extended && strchr("+?|", *text))
			refuse("\\%c is GNU's in a basic regular expression", *text);
		if (strchr("wWsSbB<>`'", *text))
			refuse("\\%c is GNU's in a regular expression", *text);
	}
}

static char *
read_file(const char *path)
{
	FILE *file = fopen(path, "r");
	size_t size = 0;
	ssize_t length;
	char *text = NULL;

	if (file == NULL)
		return NULL;
	length = getdelim(&text, &size, '\0', file);
	fclose(file);
	if (length < 0) {
		free(text);
		return strdup("");
	}
	return text;
}

static void
check_script(const char *text, bool extended)
{
	check_pattern(text, extended);
	for (const char *at = text; (at = strchr(at, '\\')) != NULL; at += at[1] ? 2 : 1)
		if (at[1] && strchr("tafvdoxcLUEul", at[1]))
			refuse("\\%c is GNU's in a script of sed", at[1]);
}

static void
check_find(int first, int count, char **argv)
{
	static const char *const with_value[] = {"-amin", "-anewer", "-atime", "-cmin", "-cnewer", "-ctime",
	    "-fstype", "-group", "-iname", "-inum", "-links", "-maxdepth", "-mindepth", "-mmin", "-mtime", "-name",
	    "-newer", "-path", "-perm", "-size", "-type", "-user", NULL};
	static const char *const alone[] = {"-delete", "-depth", "-empty", "-follow", "-ls", "-mount", "-nogroup",
	    "-nouser", "-print", "-print0", "-prune", "-xdev", "-a", "-and", "-o", "-or", "!", "(", ")", NULL};
	static const char *const programs[] = {"-exec", "-execdir", "-ok", NULL};
	int at = first;

	if (at == count || argv[at][0] == '-' || !strcmp(argv[at], "!") || !strcmp(argv[at], "("))
		refuse("find wants a path");
	while (at < count && argv[at][0] != '-' && strcmp(argv[at], "!") && strcmp(argv[at], "("))
		at++;
	for (; at < count; at++) {
		bool known = false;

		for (int n = 0; alone[n]; n++)
			known = known || !strcmp(argv[at], alone[n]);
		for (int n = 0; with_value[n]; n++) {
			if (strcmp(argv[at], with_value[n]))
				continue;
			known = true;
			if (++at >= count)
				return;
			if (!strcmp(with_value[n], "-perm") && (argv[at][0] == '/' || argv[at][0] == '+'))
				refuse("find -perm %s", argv[at]);
			if (!strcmp(with_value[n], "-size") && argv[at][strspn(argv[at], "+-0123456789")] != '\0' &&
			    strcmp(argv[at] + strspn(argv[at], "+-0123456789"), "c"))
				refuse("find -size %s", argv[at]);
			if (!strcmp(with_value[n], "-type") && (argv[at][1] != '\0' || !strchr("bcdflps", argv[at][0])))
				refuse("find -type %s", argv[at]);
			break;
		}
		if (known)
			continue;
		for (int n = 0; programs[n]; n++)
			known = known || !strcmp(argv[at], programs[n]);
		if (!known)
			refuse("find has no %s", argv[at]);
		while (at < count && strcmp(argv[at], ";") &&
		    !(!strcmp(argv[at], "+") && !strcmp(argv[at - 1], "{}")))
			at++;
	}
}

/* The letters of tar's first word, and the only option that may follow its operands: -C. */
static void
check_tar(const struct tool *tool, int count, char **argv)
{
	int values = 0;

	if (count < 2)
		refuse("tar without an operation");
	for (const char *letter = argv[1] + (argv[1][0] == '-'); *letter; letter++) {
		const char *found = lookup(tool->carried, *letter);

		if (found == NULL)
			refuse("option -%c %s", *letter,
			    lookup(tool->openbsd, *letter) ? "has no counterpart" : "is not OpenBSD's");
		if (found[1] == ':' && argv[1][0] == '-' && letter[1] != '\0')
			break;
		values += found[1] == ':';
	}
	for (int at = 2 + values; at < count; at++) {
		const char *text = argv[at];

		if (text[0] != '-' || text[1] == '\0')
			continue;
		if (!lookup(tool->carried, text[1]) || text[1] == '-')
			refuse("option %s is not OpenBSD's, or has no counterpart", text);
		if (lookup(tool->carried, text[1])[1] == ':' && text[2] == '\0')
			at++;
	}
}

static bool
iso_time(const char *text)
{
	const char *form = "dddd-dd-ddTdd:dd:dd";

	for (; *form; form++, text++)
		if (*form == 'd' ? !isdigit((unsigned char)*text) : *form == 'T' ? *text != 'T' && *text != ' ' : *text != *form)
			return false;
	if (*text == '.' || *text == ',')
		for (text++; isdigit((unsigned char)*text); text++)
			;
	return !strcmp(text, "") || !strcmp(text, "Z");
}

static bool
all_of(const char *text, const char *characters)
{
	return *text != '\0' && strspn(text, characters) == strlen(text);
}

/* A command line of a tool, as far as it is read. */
struct line {
	const struct tool *tool;
	char **out;          /* what the real program gets */
	int used;
	bool extended;       /* of the regular expressions */
	bool fixed;          /* there are none */
	bool ended;          /* "--" ended the options */
	bool directory;      /* mktemp -p */
	const char **texts;  /* scripts and patterns of options */
	int text_count;
};

static bool
one_of(const char *word, const char *const *known)
{
	while (*known && strcmp(word, *known))
		known++;
	return *known != NULL;
}

/* The operands of tools that have no options. */
static void
check_words(const char *name, int first, int count, char **argv)
{
	static const char *const gnu_expr[] = {"length", "index", "substr", "match", NULL};
	static const char *const databases[] = {"ethers", "group", "hosts", "networks", "passwd", "protocols", "rpc",
	    "services", "shells", NULL};
	static const char *const dd[] = {"if", "of", "bs", "ibs", "obs", "cbs", "count", "skip", "seek", "conv", NULL};

	if (!strcmp(name, "expr") && first + 1 < count && one_of(argv[first], gnu_expr))
		refuse("expr's word %s is GNU's", argv[first]);
	if (!strcmp(name, "getent") && (first == count || !one_of(argv[first], databases)))
		refuse("getent has no database %s", first == count ? "given" : argv[first]);
	for (int at = first; !strcmp(name, "dd") && at < count; at++) {
		char *word = strdup(argv[at]);

		if (word != NULL)
			word[strcspn(word, "=")] = '\0';
		if (word == NULL || !one_of(word, dd))
			refuse("dd's operand %s", argv[at]);
		free(word);
	}
}

/* What the operands and the values of options may not be. */
static void
check_operands(const struct line *line, int first, int count, char **argv)
{
	const struct tool *tool = line->tool;

	switch (tool->kind) {
	case GREP:
	case PERMUTES:
		for (int at = first; !line->ended && at < count; at++)
			if (argv[at][0] == '-' && argv[at][1] != '\0')
				refuse("option %s behind an operand", argv[at]);
		break;
	case FIND:
		check_find(first, count, argv);
		break;
	case MKTEMP:
		if (line->directory && getenv("TMPDIR") && *getenv("TMPDIR"))
			refuse("-p while TMPDIR is set");
		for (int at = first; at < count; at++) {
			size_t length = strlen(argv[at]);

			if (length < 6 || strcmp(argv[at] + length - 6, "XXXXXX"))
				refuse("a template ends in six X");
			/* mktemp.1: -p implies -t, and TMPDIR overrides it. */
			if (line->directory && strchr(argv[at], '/'))
				refuse("-p and a template with directories");
		}
		break;
	case SLEEP:
		for (int at = first; at < count; at++)
			if (!all_of(argv[at], "0123456789."))
				refuse("sleep %s", argv[at]);
		break;
	case PRINTF:
		for (int at = first; at < count && at == first; at++)
			if (strstr(argv[at], "%q") || strstr(argv[at], "\\u") || strstr(argv[at], "%("))
				refuse("printf's %%q, %%( and \\u");
		break;
	case WORDS:
		check_words(tool->name, first, count, argv);
		break;
	default:
		break;
	}
}

static void
check_text(const struct line *line, const char *text)
{
	if (line->tool->kind == SED)
		check_script(text, line->extended);
	else if (line->tool->kind == GREP && !line->fixed)
		check_pattern(text, line->extended);
}

/* Keep the value of an option that is a script or a pattern, or names a file of them. */
static void
keep_text(struct line *line, char letter, const char *value)
{
	const char *text = letter == 'f' ? read_file(value) : value;

	/* A script on stdin cannot be looked at before the real program reads it. */
	if (letter == 'f' && (!strcmp(value, "-") || !strcmp(value, "/dev/stdin")))
		refuse("%s -f of stdin", line->tool->name);
	if (text != NULL)
		line->texts[line->text_count++] = text;
}

/* Read one word of options and the value behind it; return the index of the last word that was read. */
static int
read_options(struct line *line, int at, int count, char **argv)
{
	const struct tool *tool = line->tool;

	line->out[line->used++] = argv[at];
	for (const char *letter = argv[at] + 1; *letter; letter++) {
		const char *known = lookup(tool->openbsd, *letter);
		const char *value = letter + 1;

		if (known == NULL)
			refuse("option -%c is not OpenBSD's", *letter);
		if (lookup(tool->carried, *letter) == NULL)
			refuse("option -%c of OpenBSD has no counterpart", *letter);
		line->extended = line->extended || *letter == 'E' || (tool->kind == SED && *letter == 'r');
		line->fixed = line->fixed || *letter == 'F';
		line->directory = line->directory || (tool->kind == MKTEMP && *letter == 'p');
		if (known[1] != ':')
			continue;
		/* sed -i: a suffix is attached or not there (main.c: i::). */
		if (known[2] == ':')
			break;
		if (*value == '\0') {
			if (++at >= count)
				break;
			value = argv[at];
			line->out[line->used++] = argv[at];
		}
		if ((tool->kind == SED || tool->kind == GREP) && strchr("ef", *letter))
			keep_text(line, *letter, value);
		if (tool->kind == TOUCH && *letter == 'd' && !iso_time(value))
			refuse("touch -d wants CCYY-MM-DDThh:mm:SS[.frac][Z]");
		break;
	}
	return at;
}

/* Read the options up to the first operand; return its index. */
static int
read_line(struct line *line, int count, char **argv)
{
	int at;

	if (line->tool->kind == TAR || line->tool->kind == WORDS)
		return 1;
	for (at = 1; at < count; at++) {
		char *word = argv[at];

		if (word[0] != '-' || word[1] == '\0')
			break;
		if (!strcmp(word, "--")) {
			line->ended = true;
			return at + 1;
		}
		if (word[1] == '-')
			refuse("long option %s", word);
		if (line->tool->kind == MODE && all_of(word + 1, "rwxXstugo,+-="))
			break;
		if (line->tool->kind == COUNT && all_of(word + 1, "0123456789")) {
			line->out[line->used++] = "-n";
			line->out[line->used++] = word + 1;
		} else if (line->tool->kind == GREP && all_of(word + 1, "0123456789"))
			line->out[line->used++] = word;
		else
			at = read_options(line, at, count, argv);
	}
	return at;
}

int
main(int argc, char **argv)
{
	struct line line = {0};
	const char *bin = getenv("STANDIN_BIN");
	char path[PATH_MAX];
	const char *name;
	int at;

	given_count = argc;
	given = argv;
	name = argc > 0 ? basename(strdup(argv[0])) : "";
	line.out = calloc((size_t)argc * 2 + 6, sizeof(*line.out));
	line.texts = calloc((size_t)argc + 1, sizeof(*line.texts));
	if (line.out == NULL || line.texts == NULL)
		return 1;
	for (size_t n = 0; n < sizeof(tools) / sizeof(tools[0]); n++)
		if (!strcmp(tools[n].name, name))
			line.tool = &tools[n];
	if (line.tool == NULL)
		refuse("no such tool is known");
	line.used = 1;
	line.extended = !strcmp(name, "egrep");
	line.fixed = !strcmp(name, "fgrep");
	/* GNU's own egrep and fgrep warn that they are obsolete. */
	if (line.tool->kind == GREP)
		name = "grep";
	if (line.extended || line.fixed)
		line.out[line.used++] = line.extended ? "-E" : "-F";
	/* OpenBSD's sed has no extensions, and neither has GNU's with this. */
	if (line.tool->kind == SED)
		line.out[line.used++] = "--posix";
	/* ls.1: "Always set for the superuser." */
	if (!strcmp(name, "ls") && geteuid() == 0)
		line.out[line.used++] = "-A";
	if (!strcmp(name, "df"))
		line.out[line.used++] = "-P";
	/* Blocks are of 512 bytes unless -k is given. */
	if (!strcmp(name, "df") || !strcmp(name, "du"))
		setenv("POSIXLY_CORRECT", "1", 1);

	if (line.tool->kind == TAR)
		check_tar(line.tool, argc, argv);
	at = read_line(&line, argc, argv);
	for (int n = 0; n < line.text_count; n++)
		check_text(&line, line.texts[n]);
	if (line.text_count == 0 && at < argc)
		check_text(&line, argv[at]);
	check_operands(&line, at, argc, argv);
	/* getopt(3) ends at the first operand; GNU's goes on looking for options behind it. */
	if (at < argc && line.tool->kind != TAR && line.tool->kind != WORDS && line.tool->kind != FIND &&
	    line.tool->kind != BARE)
		line.out[line.used++] = "--";
	while (at < argc)
		line.out[line.used++] = argv[at++];
	snprintf(path, sizeof(path), "%s/%s", bin ? bin : "/usr/lib/standin/bin", name);
	line.out[0] = (char *)name;
	execv(path, line.out);
	fprintf(stderr, "%s: %s\n", path, strerror(errno));
	return errno == ENOENT ? 127 : 126;
}
