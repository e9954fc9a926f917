package event

import "time"

// endOfTime is the first instant after the year 2262, the last that
// nanoseconds in an int64 reach; Unix milliseconds.
var endOfTime = time.Date(2263, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()

// parseTime reads an RFC 3339 time with its offset, from 1970 to 2262 in UTC,
// as Unix milliseconds; what is below a millisecond is cut off. Leap seconds
// are refused: Unix time has none.
func parseTime(b []byte) (int64, bool) {
	// 2006-01-02T15:04:05 and at least Z
	if len(b) < 20 || b[4] != '-' || b[7] != '-' || b[10]|0x20 != 't' || b[13] != ':' || b[16] != ':' {
		return 0, false
	}
	century, ok0 := twoDigits(b, 0)
	year, ok1 := twoDigits(b, 2)
	month, ok2 := twoDigits(b, 5)
	day, ok3 := twoDigits(b, 8)
	hour, ok4 := twoDigits(b, 11)
	minute, ok5 := twoDigits(b, 14)
	second, ok6 := twoDigits(b, 17)
	year += 100 * century
	if !(ok0 && ok1 && ok2 && ok3 && ok4 && ok5 && ok6) ||
		month < 1 || month > 12 || day < 1 || day > daysIn(year, month) || hour > 23 || minute > 59 || second > 59 {
		return 0, false
	}
	ms, b := 0, b[19:]
	if b[0] == '.' {
		weight, n := 100, 1
		for ; n < len(b) && b[n] >= '0' && b[n] <= '9'; n++ {
			ms += weight * int(b[n]-'0')
			weight /= 10
		}
		if n == 1 {
			return 0, false
		}
		b = b[n:]
	}
	offset := 0 // minutes east of UTC
	switch {
	case len(b) == 1 && b[0]|0x20 == 'z':
	case len(b) == 6 && (b[0] == '+' || b[0] == '-') && b[3] == ':':
		hours, ok1 := twoDigits(b, 1)
		minutes, ok2 := twoDigits(b, 4)
		if !ok1 || !ok2 || hours > 23 || minutes > 59 {
			return 0, false
		}
		offset = 60*hours + minutes
		if b[0] == '-' {
			offset = -offset
		}
	default:
		return 0, false
	}
	minutes := (dayNumber(year, month, day)*24+hour)*60 + minute - offset
	at := int64(minutes*60+second)*1000 + int64(ms)
	return at, at >= 0 && at < endOfTime
}

func twoDigits(b []byte, i int) (int, bool) {
	hi, lo := b[i]-'0', b[i+1]-'0'
	return int(hi)*10 + int(lo), hi <= 9 && lo <= 9
}

func daysIn(year, month int) int {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// dayNumber is the days from 1970-01-01 to a date of the Gregorian calendar:
// years begin in March, so that the leap day is a year's last.
func dayNumber(year, month, day int) int {
	if month <= 2 {
		year--
		month += 12
	}
	return 365*year + year/4 - year/100 + year/400 + (153*(month-3)+2)/5 + day - 1 - 719468
}
