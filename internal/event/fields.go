package event

import "slices"

// fieldsOf are the data fields of each type, the required ones first. The order
// within is that in which the decoder reads them.
var fieldsOf = [...]struct{ required, optional []int }{
	Purchase: {
		[]int{fieldOrderID, fieldAmount, fieldCurrency},
		[]int{fieldBase, fieldFXRate, fieldCost, fieldMargin, fieldCategory, fieldChannel, fieldStatus, fieldTest},
	},
	Return: {
		[]int{fieldReturnID, fieldOrderID, fieldAmount, fieldCurrency},
		[]int{fieldKind, fieldReason, fieldTest},
	},
	Complaint: {
		[]int{fieldComplaintID, fieldSeverity, fieldStatus},
		[]int{fieldOrderID, fieldCompensation, fieldCurrency, fieldTest},
	},
	Referral: {
		[]int{fieldReferralID, fieldRefereeID, fieldStatus},
		[]int{fieldValue, fieldCurrency, fieldTest},
	},
	Feedback: {
		[]int{fieldResponseID, fieldKind},
		[]int{fieldScore, fieldScaleMax, fieldTest},
	},
	Cost: {
		[]int{fieldCostID, fieldKind, fieldAmount, fieldCurrency},
		[]int{fieldTest},
	},
}

// Fields are the names of the data fields of a type, the first so many of them
// required. A field that another one makes necessary counts as optional.
func (t Type) Fields() (names []string, required int) {
	if t < Purchase || t > Cost {
		return nil, 0
	}
	f := &fieldsOf[t]
	for _, i := range slices.Concat(f.required, f.optional) {
		names = append(names, fieldNames[i])
	}
	return names, len(f.required)
}
