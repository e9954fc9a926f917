package scoring

// The calculators are figures whose inputs no event carries: somebody states
// them. Money is in whatever unit it is given in, nothing is rounded, and a
// denominator of 0 gives ±Inf or NaN.

// CAC is the cost of acquiring one customer: spending over new customers. Whose
// spending says which of the two usual definitions it is, marketing and sales
// alone or with service.
func CAC(spending, newCustomers float64) float64 { return spending / newCustomers }

// CACRatio is the acquisition cost as a part of the value acquired.
func CACRatio(cac, value float64) float64 { return cac / value }

// LTVToCAC is lifetime value over acquisition cost; 3 is a common target.
func LTVToCAC(value, cac float64) float64 { return value / cac }

// ROI is the return on a spending: (gain − cost)/cost.
func ROI(gain, cost float64) float64 { return (gain - cost) / cost }

// LossValue is what a lost customer costs: (a + b)(1 + x) for values a and b
// and the goodwill mark-up x.
func LossValue(a, b, x float64) float64 { return float64((a + b) * (1 + x)) }

// InformationUse is one use of what customers tell: with a chance it turns into
// so many cases of so much benefit.
type InformationUse struct{ Chance, Cases, Benefit float64 }

// InformationValue is what customers' information is worth:
// K·Σ chance·cases·benefit − asked·cost, where k is the part of the benefit
// that is due to the information, asked how many customers are asked for it and
// cost what asking one costs.
func InformationValue(k float64, uses []InformationUse, asked, cost float64) float64 {
	var sum float64
	for _, u := range uses {
		sum += float64(u.Chance * u.Cases * u.Benefit)
	}
	return float64(k*sum) - float64(asked*cost)
}
