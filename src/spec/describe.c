/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of settings in words. See describe.h. */
#include <stdio.h>
#include <string.h>

#include <insula/base.h>

#include "config.h"
#include "describe.h"
#include "json.h"

#define HELP_AT 20 /* the column of what a flag does */
#define MORE_AT 8  /* of the rest of a value that is too long for a line */

/* ---- --help ---- */

/* A word, up to the next blank. */
static size_t word_length(const char *text)
{
	return strcspn(text, " ");
}

/* A piece of a value: up to an optional part, which begins "[,". */
static size_t part_length(const char *text)
{
	unsigned depth = 0;
	size_t n = 0;

	do {
		depth += text[n] == '[';
		depth -= text[n] == ']' && depth;
		n++;
	} while (text[n] && (depth || strncmp(text + n, "[,", 2) != 0));
	return n;
}

/* From this column on; a line that is full goes on at `indent`. The column at the end. */
static size_t print_wrapped(const char *text, size_t column, size_t indent,
			    size_t (*length)(const char *))
{
	bool begins = true;

	while (*text) {
		bool blank = *text == ' ';
		size_t n;

		text += blank;
		n = length(text);
		if (!begins && column + blank + n >= FLAG_WIDTH) {
			printf("\n%*s", (int)indent, "");
			column = indent;
		} else if (blank) {
			putchar(' ');
			column++;
		}
		printf("%.*s", (int)n, text);
		column += n;
		text += n;
		begins = false;
	}
	return column;
}

void print_words(const char *text, size_t column, size_t indent)
{
	print_wrapped(text, column, indent, word_length);
}

void flag_print(const struct flag_words *f)
{
	char head[64];
	size_t column;

	if (f->letter && f->name)
		snprintf(head, sizeof(head), "  -%c, --%s%s", f->letter, f->name,
			 f->value ? " " : "");
	else if (f->letter)
		snprintf(head, sizeof(head), "  -%c%s", f->letter, f->value ? " " : "");
	else
		snprintf(head, sizeof(head), "  --%s%s", f->name, f->value ? " " : "");
	printf("%s", head);
	column = strlen(head);
	if (f->value)
		column = print_wrapped(f->value, column, MORE_AT, part_length);
	if (column >= HELP_AT - 1) {
		printf("\n");
		column = 0;
	}
	printf("%*s", (int)(HELP_AT - column), "");
	print_words(f->help, HELP_AT, HELP_AT);
	printf("\n");
}

static bool is_windows(void)
{
	return settings_here == ON_WINDOWS;
}

size_t settings_flags(struct flag_words *out)
{
	size_t n = 0;

	for (size_t i = 0; i < SETTINGS; i++) {
		const struct setting *s = &settings[i];

		if (!(s->on & settings_here))
			continue;
		out[n++] = (struct flag_words){
			.name = s->letter ? NULL : s->name,
			.letter = s->letter,
			.value = is_windows() && s->value_windows ? s->value_windows : s->value,
			.words = s->words,
			.path = s->path,
			.help = is_windows() && s->help_windows ? s->help_windows : s->help,
		};
	}
	return n;
}

/* ---- the schema ---- */

static json_object *typed(const char *type)
{
	json_object *o = json_object_new_object();

	j_str(o, "type", type);
	return o;
}

/* One of two types. */
static json_object *either(const char *a, const char *b)
{
	json_object *o = json_object_new_object(), *list = json_object_new_array();

	json_object_array_add(list, json_object_new_string(a));
	json_object_array_add(list, json_object_new_string(b));
	j_obj(o, "type", list);
	return o;
}

static json_object *array_of(json_object *items)
{
	json_object *o = typed("array");

	j_obj(o, "items", items);
	return o;
}

static void add_choice(json_object *o, const char *choice)
{
	json_object *list = json_object_new_array();

	while (*(choice += strspn(choice, " "))) {
		size_t n = strcspn(choice, " ");

		json_object_array_add(list, json_object_new_string_len(choice, (int)n));
		choice += n;
	}
	j_obj(o, "enum", list);
}

/* A number is in its range; how long a text may be is in bytes. */
static void add_range(json_object *o, uint64_t min, uint64_t max, bool number)
{
	if (max) {
		j_int(o, number ? "minimum" : "minLength", (int64_t)min);
		j_int(o, number ? "maximum" : "maxLength", (int64_t)max);
	}
}

static json_object *item_schema(const struct setting_item *it)
{
	bool number = it->type == SETTING_NUMBER || it->type == SETTING_SIZE;
	json_object *o;

	switch (it->type) {
	case SETTING_FLAG:
		o = typed("boolean");
		break;
	case SETTING_NUMBER:
		o = typed("integer");
		break;
	case SETTING_SIZE:
		o = either("string", "integer");
		break;
	case SETTING_TEXTS:
		o = either("string", "array");
		j_obj(o, "items", typed("string"));
		break;
	default:
		o = typed("string");
		break;
	}
	if (it->choice)
		add_choice(o, it->choice);
	add_range(o, it->min, it->max, number);
	j_str(o, "description", it->help);
	return o;
}

/* An object of its items, or the text of the flag. */
static json_object *items_schema(const struct setting *s)
{
	json_object *o = either("object", "string"), *members = json_object_new_object();

	j_bool(o, "additionalProperties", false);
	for (size_t i = 0; i < s->nitems; i++)
		j_obj(members, s->item[i].key, item_schema(&s->item[i]));
	j_obj(o, "properties", members);
	return o;
}

static json_object *setting_schema(const struct setting *s)
{
	json_object *o;

	if (s->items)
		o = items_schema(s);
	else if (s->type == SETTING_FLAG)
		o = typed("boolean");
	else
		o = s->many ? typed("string") : either("string", "integer");
	if (s->type == SETTING_NUMBER || s->type == SETTING_SIZE)
		add_range(o, s->min, s->max, true);
	if (s->many)
		o = array_of(o);
	j_str(o, "description", is_windows() && s->help_windows ? s->help_windows : s->help);
	return o;
}

json_object *settings_schema(void)
{
	json_object *o = typed("object"), *members = json_object_new_object(), *command;

	for (size_t i = 0; i < SETTINGS; i++) {
		if (settings[i].on & settings_here)
			j_obj(members, setting_key(&settings[i]), setting_schema(&settings[i]));
	}
	command = array_of(typed("string"));
	j_int(command, "maxItems", CONFIG_MAX_ARGS);
	j_str(command, "description", "the command and its arguments");
	j_obj(members, "command", command);
	j_bool(o, "additionalProperties", false);
	j_str(o, "description", "what insula-run --json takes; paths are absolute");
	j_obj(o, "properties", members);
	return o;
}
