/* The whole user space of a lab guest: proves from inside that the guest runs.
 *
 * It beats: every few seconds it writes one record to its first disk and the same text to its serial console,
 *     heartbeat NAME COUNT boot=BOOTS vda=BYTES vdb=BYTES ...
 * The count goes on where the disk says it stood. The first start also writes a region whose content follows from
 * the guest's name, to be compared after the disk was grown, moved or restored.
 *
 * Words of the kernel command line: guest.name, guest.address (a.b.c.d/len), guest.gateway, guest.beat (seconds),
 * guest.passphrase (asks on the console before anything else, as an encrypted OpenBSD does).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/input.h>
#include <net/if.h>
#include <net/route.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { RECORD_AT = 4096, RECORD = 512, REGION_AT = 1048576, REGION = 1048576, INPUTS = 4 };

static char line[4096], name[64] = "guest";
static volatile sig_atomic_t stop;

static void on_term(int signal) { (void)signal; stop = 1; }

static const char *word(const char *key, char *out, size_t size)
{
	size_t length = strlen(key);
	for (const char *p = line; *p; p += strcspn(p, " \n"), p += strspn(p, " \n"))
		if (!strncmp(p, key, length) && (p[length] == '=' || strchr(" \n", p[length]))) {
			const char *value = p + length + (p[length] == '=');
			snprintf(out, size, "%.*s", (int)strcspn(value, " \n"), value);
			return out;
		}
	return NULL;
}

static void load_modules(void)
{
	char path[128], module[100];
	FILE *order = fopen("/modules/order", "r");
	while (order && fscanf(order, "%99s", module) == 1) {
		snprintf(path, sizeof path, "/modules/%s", module);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST))
			printf("guest: %s: %s\n", module, strerror(errno));
		if (fd >= 0)
			close(fd);
	}
	if (order)
		fclose(order);
}

static void set_address(const char *text, const char *gateway)
{
	char address[32];
	int fd = socket(AF_INET, SOCK_DGRAM, 0), length = 24;
	struct ifreq request = {.ifr_name = "eth0"};
	struct sockaddr_in *in = (struct sockaddr_in *)&request.ifr_addr;

	snprintf(address, sizeof address, "%.*s", (int)strcspn(text, "/"), text);
	if (strchr(text, '/'))
		length = atoi(strchr(text, '/') + 1);
	in->sin_family = AF_INET;
	inet_pton(AF_INET, address, &in->sin_addr);
	if (ioctl(fd, SIOCSIFADDR, &request))
		printf("guest: %s: %s\n", text, strerror(errno));
	in->sin_addr.s_addr = htonl(length ? ~0u << (32 - length) : 0);
	ioctl(fd, SIOCSIFNETMASK, &request);
	request.ifr_flags = IFF_UP | IFF_RUNNING;
	ioctl(fd, SIOCSIFFLAGS, &request);
	if (gateway) {
		struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY};
		route.rt_dst.sa_family = route.rt_genmask.sa_family = route.rt_gateway.sa_family = AF_INET;
		inet_pton(AF_INET, gateway, &((struct sockaddr_in *)&route.rt_gateway)->sin_addr);
		ioctl(fd, SIOCADDRT, &route);
	}
	close(fd);
}

static void ask_passphrase(void)
{
	char answer[256];
	printf("passphrase: ");
	fflush(stdout);
	while (!fgets(answer, sizeof answer, stdin)) {
		clearerr(stdin);
		sleep(1);
	}
}

static void power_off(void)
{
	printf("guest: power off\n");
	fflush(stdout);
	sync();
	reboot(RB_POWER_OFF);
}

/* xorshift64*, seeded with the name (FNV-1a): the same region on any disk of this guest. */
static void write_region(int disk)
{
	static uint64_t region[REGION / sizeof(uint64_t)] __attribute__((aligned(4096)));
	uint64_t state = 14695981039346656037u;
	for (const char *p = name; *p; p++)
		state = (state ^ (unsigned char)*p) * 1099511628211u;
	for (size_t i = 0; i < REGION / sizeof *region; i++) {
		state ^= state >> 12;
		state ^= state << 25;
		state ^= state >> 27;
		region[i] = state * 2685821657736338717u;
	}
	if (pwrite(disk, region, REGION, REGION_AT) != REGION)
		printf("guest: region: %s\n", strerror(errno));
}

static void add_sizes(char *text, size_t size)
{
	for (char letter = 'a'; letter <= 'z'; letter++) {
		char path[16];
		uint64_t bytes;
		snprintf(path, sizeof path, "/dev/vd%c", letter);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return;
		if (!ioctl(fd, BLKGETSIZE64, &bytes)) {
			size_t used = strlen(text);
			snprintf(text + used, size - used, " vd%c=%llu", letter, (unsigned long long)bytes);
		}
		close(fd);
	}
}

static time_t uptime(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

/* Waits for the next beat; an ACPI power button (virsh shutdown) ends the guest. */
static void wait_for(int seconds, struct pollfd *inputs)
{
	time_t until = uptime() + seconds;
	for (time_t now = uptime(); now < until && !stop; now = uptime())
		if (poll(inputs, INPUTS, (int)(until - now) * 1000) > 0)
			for (int i = 0; i < INPUTS; i++) {
				struct input_event event;
				while (read(inputs[i].fd, &event, sizeof event) == sizeof event)
					if (event.type == EV_KEY && event.code == KEY_POWER && event.value)
						stop = 1;
			}
	if (stop)
		power_off();
}

int main(void)
{
	static char record[RECORD] __attribute__((aligned(4096)));
	char value[64], other[64], read_name[64];
	unsigned long long count = 0, boots = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir("/dev", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("dev", "/dev", "devtmpfs", 0, NULL);
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && read(fd, line, sizeof line - 1) < 0)
		line[0] = 0;
	close(fd);
	word("guest.name", name, sizeof name);
	load_modules();
	struct sigaction action = {.sa_handler = on_term};
	sigaction(SIGTERM, &action, NULL);
	struct pollfd inputs[INPUTS];
	for (int i = 0; i < INPUTS; i++) {
		snprintf(value, sizeof value, "/dev/input/event%d", i);
		inputs[i] = (struct pollfd){.fd = open(value, O_RDONLY | O_NONBLOCK | O_CLOEXEC), .events = POLLIN};
	}

	if (word("guest.passphrase", value, sizeof value))
		ask_passphrase();
	if (word("guest.address", value, sizeof value))
		set_address(value, word("guest.gateway", other, sizeof other));
	int beat = word("guest.beat", value, sizeof value) ? atoi(value) : 5;

	int disk = open("/dev/vda", O_RDWR | O_DSYNC | O_CLOEXEC);
	if (disk < 0)
		printf("guest: /dev/vda: %s\n", strerror(errno));
	else if (pread(disk, record, RECORD, RECORD_AT) == RECORD &&
		 sscanf(record, "heartbeat %63s %llu boot=%llu", read_name, &count, &boots) == 3)
		printf("guest: %s: starts again after %llu beats\n", name, count);
	else
		write_region(disk);
	boots++;
	for (;;) {
		memset(record, 0, sizeof record);
		snprintf(record, sizeof record, "heartbeat %s %llu boot=%llu", name, ++count, boots);
		add_sizes(record, sizeof record - 1);
		strcat(record, "\n");
		if (disk >= 0 && pwrite(disk, record, RECORD, RECORD_AT) != RECORD)
			printf("guest: heartbeat: %s\n", strerror(errno));
		fputs(record, stdout);
		fflush(stdout);
		wait_for(beat > 0 ? beat : 5, inputs);
	}
}
