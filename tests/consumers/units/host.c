// host PLUGIN: loads it, lets it work with threads, unloads it, and looks whether anything of it is still there.
#include <dirent.h>
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static int threads(void) {
  int n = 0;
  DIR* d = opendir("/proc/self/task");
  for (struct dirent* e; d != NULL && (e = readdir(d)) != NULL;) n += e->d_name[0] != '.';
  closedir(d);
  return n;
}

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const int before = threads();
  for (int round = 0; round < 3; ++round) {
    void* plugin = dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL);
    if (plugin == NULL) return printf("%s\n", dlerror()), 2;
    int (*work)(void) = (int (*)(void))dlsym(plugin, "work");
    if (work == NULL || work() != 0) return printf("the plug-in does not work\n"), 1;
    if (dlclose(plugin) != 0) return printf("%s\n", dlerror()), 1;
    FILE* maps = fopen("/proc/self/maps", "r");
    char line[4096];
    while (fgets(line, sizeof line, maps) != NULL)
      if (strstr(line, argv[1]) != NULL) return printf("the plug-in is still there: %s", line), 1;
    fclose(maps);
    if (threads() != before) return printf("a thread of the plug-in is still there\n"), 1;
  }
  return 0;
}
